;; Code that nothing reaches costs nothing.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (block $b (br $b) (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 9)) (br_if $l (i32.const 1)) (br $l)) unreachable)
    (if (i32.const 0) (then unreachable) (else (return)))
    (drop (memory.grow (i32.const 1)))
    unreachable))
