;; A copy beyond the table.
(module
  (memory (export "memory") 1)
  (table $t 4 funcref)
  (func (export "_start")
    (table.copy $t $t (i32.const 0) (i32.const 3) (i32.const 2))))
