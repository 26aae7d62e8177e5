;; Files until the tree is full.
(module
  (import "wasi_snapshot_preview1" "path_create_directory" (func $path_create_directory (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (local $i i32)
    (loop $l
      (i32.store (i32.const 256) (i32.or (i32.const 1077952576) (i32.and (local.get $i) (i32.const 252645135))))
      (i32.store (i32.const 260) (i32.or (i32.const 1077952576) (i32.and (i32.shr_u (local.get $i) (i32.const 4)) (i32.const 252645135))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.eqz (call $path_create_directory (i32.const 3) (i32.const 256) (i32.const 8)))))
    (i32.store (i32.const 16) (local.get $i))))
