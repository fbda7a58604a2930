;; A component with a type that is twice as large as the one before it, sixty times over.
(component
  (type $t0 (tuple u64 u64))
  ;; TYPES
)
