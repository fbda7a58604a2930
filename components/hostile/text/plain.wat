;; An agent that answers nothing, for additions to it that are an attack before the first message: the line that says so
;; is replaced by them.
(module $plain
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get 3))))
  (func (export "caxton:agent/handler@0.1.0#handle") (param i32) (result i32)
    (global.set $top (i32.const 1024))
    (i32.const 16))
  ;; ADDITIONS
)
