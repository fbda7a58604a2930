;; A component that exports a component where the contract has an interface.
(component
  (component $inner)
  (export "caxton:agent/handler@0.1.0" (component $inner)))
