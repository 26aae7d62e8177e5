;; A fill beyond the table.
(module
  (memory (export "memory") 1)
  (table $t 4 funcref)
  (func (export "_start")
    (table.fill $t (i32.const 3) (ref.null func) (i32.const 2))))
