;; Large fills, over and over.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))))
