;; Lists a directory from its start, over and over.
(module
  (import "wasi_snapshot_preview1" "fd_readdir" (func $fd_readdir (param i32 i32 i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $l (drop (call $fd_readdir (i32.const 3) (i32.const 256) (i32.const 8) (i64.const 0) (i32.const 16))) (br $l))))
