;; More elements than the segment has.
(module
  (memory (export "memory") 1)
  (table $t 4 funcref)
  (elem $e func $f)
  (func $f)
  (func (export "_start")
    (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 2))))
