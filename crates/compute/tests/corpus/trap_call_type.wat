;; A call of a function of another type.
(module
  (memory (export "memory") 1)
  (table funcref (elem $f))
  (func $f)
  (func (export "_start")
    (call_indirect (param i32) (i32.const 1) (i32.const 0))))
