;; Fills of a table, over and over.
(module
  (table $t 10000 funcref)
  (elem declare func $f)
  (func $f)
  (func (export "_start")
    (loop $l (table.fill $t (i32.const 0) (ref.func $f) (i32.const 10000)) (br $l))))
