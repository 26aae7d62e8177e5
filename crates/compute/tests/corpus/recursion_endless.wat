;; A function that calls itself.
(module
  (func $f (call $f))
  (func (export "_start")
    (call $f)))
