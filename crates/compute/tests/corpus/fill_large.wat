;; One fill that costs more gas than there is does not begin.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 5))
    (memory.fill (i32.const 0) (i32.const 1) (i32.const -1))))
