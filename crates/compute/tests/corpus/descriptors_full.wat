;; Opens the root until there are no descriptors.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) ".")
  (func (export "_start")
    (loop $l (br_if $l (i32.eqz (call $path_open (i32.const 3) (i32.const 0) (i32.const 256) (i32.const 1) (i32.const 2) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 8)))))
    (i32.store (i32.const 16) (i32.load (i32.const 8)))))
