;; A growth that no machine has costs little, and is refused.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (memory.grow (i32.const -1)))
    (i32.store (i32.const 4) (memory.size))))
