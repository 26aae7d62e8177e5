;; A table of branches out of nested blocks, each of which counts.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (local $i i32)
    (loop $l
      (block $d (block $c (block $b (block $a (br_table $a $b $c $d (local.get $i)))
        (i32.store8 (i32.const 0) (i32.const 1)))
        (i32.store8 (i32.const 1) (i32.const 2)))
        (i32.store8 (i32.const 2) (i32.const 3)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $l (i32.lt_u (local.get $i) (i32.const 6))))))
