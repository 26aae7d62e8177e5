;; NaNs of vectors.
(module
  (memory (export "memory") 1)
  (data (i32.const 816) "\01\02\03\04\05\06\f7\ff\11\22\83\7f\55\66\ff\7f")
  (func (export "_start")
    (v128.store (i32.const 0) (f32x4.div (v128.load (i32.const 800)) (v128.load (i32.const 800))))
    (v128.store (i32.const 16) (f64x2.sqrt (v128.const f64x2 -1 -2)))
    (v128.store (i32.const 32) (f32x4.min (v128.load (i32.const 816)) (v128.const f32x4 1 1 1 1)))
    (v128.store (i32.const 48) (f64x2.add (v128.load (i32.const 816)) (v128.const f64x2 1 1)))
    (v128.store (i32.const 64) (f32x4.pmin (v128.load (i32.const 816)) (v128.const f32x4 1 1 1 1)))
    (v128.store (i32.const 80) (f32x4.nearest (v128.load (i32.const 816))))))
