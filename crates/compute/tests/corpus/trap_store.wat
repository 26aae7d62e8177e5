;; A store beyond memory, after one within it.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 7))
    (i32.store offset=4294967295 (i32.const 1) (i32.const 9))))
