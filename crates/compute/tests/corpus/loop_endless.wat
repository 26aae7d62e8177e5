;; A loop without an end.
(module
  (func (export "_start")
    (loop $l (br $l))))
