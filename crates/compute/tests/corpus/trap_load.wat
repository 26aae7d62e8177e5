;; A load that begins in memory and ends beyond it.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (i64.load (i32.const 65529)))))
