;; A function with two results that returns early, within blocks.
(module
  (memory (export "memory") 1)
  (func $g)
  (func $f (param i32) (result i32 i64)
    (call $g)
    (block $b (loop $l (if (local.get 0) (then (return (i32.const 7) (i64.const 8))))))
    (i32.const 9) (i64.const 10))
  (func (export "_start")
    (local i32 i64)
    (call $f (i32.const 1)) (local.set 1) (local.set 0)
    (i32.store (i32.const 0) (local.get 0)) (i64.store (i32.const 8) (local.get 1))
    (call $f (i32.const 0)) (local.set 1) (local.set 0)
    (i32.store (i32.const 16) (local.get 0)) (i64.store (i32.const 24) (local.get 1))))
