;; Ten thousand calls, which a native stack has room for too, and back.
(module
  (memory (export "memory") 1)
  (func $f (param i32) (result i32)
    (if (i32.eqz (local.get 0)) (then (return (i32.const 0))))
    (i32.add (i32.const 1) (call $f (i32.sub (local.get 0) (i32.const 1)))))
  (func (export "_start")
    (i32.store (i32.const 0) (call $f (i32.const 10000)))))
