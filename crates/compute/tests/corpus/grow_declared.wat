;; A maximum of the module's own.
(module
  (memory (export "memory") 1 4)
  (func (export "_start")
    (i32.store (i32.const 0) (memory.grow (i32.const 2)))
    (i32.store (i32.const 4) (memory.grow (i32.const 2)))))
