;; Directories within directories until a path is too long.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_create_directory" (func $path_create_directory (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd")
  (func (export "_start")
    (local $fd i32)
    (local.set $fd (i32.const 3))
    (loop $l
      (if (i32.eqz (call $path_create_directory (local.get $fd) (i32.const 256) (i32.const 200)))
        (then
          (drop (call $path_open (local.get $fd) (i32.const 0) (i32.const 256) (i32.const 200) (i32.const 2) (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 8)))
          (local.set $fd (i32.load (i32.const 8)))
          (br $l))))
    (i32.store (i32.const 16) (local.get $fd))))
