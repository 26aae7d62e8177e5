;; Two functions through a table.
(module
  (table funcref (elem $a $b))
  (func $a (call_indirect (i32.const 1)))
  (func $b (call_indirect (i32.const 0)))
  (func (export "_start")
    (call_indirect (i32.const 0))))
