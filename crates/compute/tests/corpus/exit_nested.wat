;; An exit from deep within.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (func $f (param i32)
    (if (local.get 0) (then (call $f (i32.sub (local.get 0) (i32.const 1)))) (else (call $proc_exit (i32.const 3)))))
  (func (export "_start")
    (call $f (i32.const 50))))
