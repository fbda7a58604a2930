;; A component like an agent, with a type that is twice as large as the one before it, sixty times over.
(component
  (core module $code (func (export "handle") (param i32) (result i32) (local.get 0)))
  (core instance $code (instantiate $code))
  (func $handle (param "message" u32) (result u32) (canon lift (core func $code "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "caxton:agent/handler@0.1.0" (instance $handler))
  (type $t0 (tuple u64 u64))
  ;; TYPES
)
