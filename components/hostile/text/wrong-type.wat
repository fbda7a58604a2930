;; A component whose handler has the name that the contract gives it, and takes and returns numbers.
(component
  (core module $code (func (export "handle") (param i32) (result i32) (local.get 0)))
  (core instance $code (instantiate $code))
  (func $handle (param "message" u32) (result u32) (canon lift (core func $code "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "caxton:agent/handler@0.1.0" (instance $handler)))
