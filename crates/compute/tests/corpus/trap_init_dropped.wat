;; A segment that was dropped has no bytes.
(module
  (memory (export "memory") 1)
  (data $d "12345678")
  (func (export "_start")
    (data.drop $d)
    (memory.init $d (i32.const 0) (i32.const 0) (i32.const 1))))
