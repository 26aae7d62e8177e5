;; A thousand buffers that are the same memory.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (local $i i32)
    (loop $l
      (i32.store (local.get $i) (i32.const 8192)) (i32.store offset=4 (local.get $i) (i32.const 57344))
      (local.set $i (i32.add (local.get $i) (i32.const 8)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 8192))))
    (loop $m (br_if $m (i32.eqz (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 60000)))))))
