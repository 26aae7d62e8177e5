;; More bytes than the segment has.
(module
  (memory (export "memory") 1)
  (data $d "12345678")
  (func (export "_start")
    (memory.init $d (i32.const 0) (i32.const 0) (i32.const 9))))
