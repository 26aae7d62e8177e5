;; A loop whose condition always holds.
(module
  (func (export "_start")
    (loop $l (br_if $l (i32.const 1)))))
