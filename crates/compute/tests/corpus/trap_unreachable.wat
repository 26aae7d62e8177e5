;; The instruction itself, after some work.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (i32.add (i32.const 1) (i32.const 2)))
    unreachable))
