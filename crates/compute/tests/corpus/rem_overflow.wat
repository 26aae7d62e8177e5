;; The remainder of the same numbers is 0.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const -1))
    (i32.store (i32.const 4) (i32.rem_s (i32.const -2147483648) (i32.load (i32.const 0))))))
