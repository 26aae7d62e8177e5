;; Loops within loops that are left by the outermost block.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (local $i i32)
    (block $out (loop $a (loop $b (loop $c
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $out (i32.gt_u (local.get $i) (i32.const 1000)))
      (br_if $c (i32.and (local.get $i) (i32.const 1)))
      (br_if $b (i32.and (local.get $i) (i32.const 2)))
      (br $a)))))
    (i32.store (i32.const 0) (local.get $i))))
