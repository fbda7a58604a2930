;; An agent that traps or lies in the way that the first byte of a message names, in ways that no compiler makes.
;;
;;   0 to b  traps: one of each kind that the engine has
;;   d to i  results that are not what the canonical ABI asks for
;;   j, k    grows its memory, its table until it is refused
;;   m, n    traps, loops after it has answered, where it should free the answer
;;   p to s  takes the next message to a place outside its memory, to a crooked one, never, or traps over it
;;
;; A message is at $message: its content's address at +28. The result is at 16: 0 there is ok, 0 at 24 no reply, and
;; a reply has its content at 36 and its content type at 44, each an address and a length.
(module $traps
  (type $plain (func))
  (memory (export "memory") 2)
  (table $calls 2 2 funcref)
  (table $grown 0 funcref)
  (elem (table $calls) (i32.const 0) func $other)
  (data (i32.const 256) "text/plain")
  (data (i32.const 272) "\ff\fe\c3\28")
  (global $top (mut i32) (i32.const 1024))
  (global $way (mut i32) (i32.const 0))

  (func $other (param i32))
  (func $deep (call $deep))
  (func $for-ever (loop (br 0)))

  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (if (i32.eq (global.get $way) (i32.const 0x70)) (then (return (i32.const 0xfffffff0))))
    (if (i32.eq (global.get $way) (i32.const 0x71)) (then (return (i32.const 1025))))
    (if (i32.eq (global.get $way) (i32.const 0x72)) (then (call $for-ever)))
    (if (i32.eq (global.get $way) (i32.const 0x73)) (then unreachable))
    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get 3))))

  (func $reply (param $at i32) (param $length i32) (param $type i32) (param $type-length i32)
    (i32.store8 (i32.const 24) (i32.const 1))
    (i32.store (i32.const 36) (local.get $at))
    (i32.store (i32.const 40) (local.get $length))
    (i32.store (i32.const 44) (local.get $type))
    (i32.store (i32.const 48) (local.get $type-length)))

  (func (export "caxton:agent/handler@0.1.0#handle") (param $message i32) (result i32)
    (local $way i32)
    (local.set $way (i32.load8_u (i32.load (i32.add (local.get $message) (i32.const 28)))))
    (global.set $way (local.get $way))
    (global.set $top (i32.const 1024))
    (if (i32.eq (local.get $way) (i32.const 0x30)) (then unreachable))
    (if (i32.eq (local.get $way) (i32.const 0x31))
      (then (drop (i32.div_s (i32.const 1) (i32.load (i32.const 512))))))
    (if (i32.eq (local.get $way) (i32.const 0x32))
      (then (drop (i32.div_s (i32.const 0x80000000) (i32.sub (i32.load (i32.const 512)) (i32.const 1))))))
    (if (i32.eq (local.get $way) (i32.const 0x33)) (then (drop (i32.trunc_f32_s (f32.const nan)))))
    (if (i32.eq (local.get $way) (i32.const 0x34)) (then (drop (i32.trunc_f64_u (f64.const 1e30)))))
    (if (i32.eq (local.get $way) (i32.const 0x35)) (then (drop (i32.load (i32.const 0xfffffffc)))))
    (if (i32.eq (local.get $way) (i32.const 0x36))
      (then (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x7fffffff))))
    (if (i32.eq (local.get $way) (i32.const 0x37)) (then (call_indirect $calls (type $plain) (i32.const 1))))
    (if (i32.eq (local.get $way) (i32.const 0x38)) (then (call_indirect $calls (type $plain) (i32.const 0))))
    (if (i32.eq (local.get $way) (i32.const 0x39)) (then (call_indirect $calls (type $plain) (i32.const 9))))
    (if (i32.eq (local.get $way) (i32.const 0x61)) (then (drop (table.get $calls (i32.const 9)))))
    (if (i32.eq (local.get $way) (i32.const 0x62)) (then (call $deep)))
    (if (i32.eq (local.get $way) (i32.const 0x64)) (then (return (i32.const 0xfffffff0))))
    (if (i32.eq (local.get $way) (i32.const 0x65))
      (then (call $reply (i32.const 0xffffff00) (i32.const 64) (i32.const 256) (i32.const 10))))
    (if (i32.eq (local.get $way) (i32.const 0x66))
      (then (call $reply (i32.const 512) (i32.const 1) (i32.const 272) (i32.const 4))))
    (if (i32.eq (local.get $way) (i32.const 0x67)) (then (i32.store8 (i32.const 16) (i32.const 7))))
    (if (i32.eq (local.get $way) (i32.const 0x68))
      (then (call $reply (i32.const 512) (i32.const 0xffffffff) (i32.const 256) (i32.const 10))))
    (if (i32.eq (local.get $way) (i32.const 0x69)) (then (return (i32.const 17))))
    (if (i32.eq (local.get $way) (i32.const 0x6a))
      (then (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))))
    (if (i32.eq (local.get $way) (i32.const 0x6b))
      (then (loop (br_if 0 (i32.ne (table.grow $grown (ref.null func) (i32.const 1000)) (i32.const -1))))))
    (i32.const 16))

  (func (export "cabi_post_caxton:agent/handler@0.1.0#handle") (param i32)
    (if (i32.eq (global.get $way) (i32.const 0x6d)) (then unreachable))
    (if (i32.eq (global.get $way) (i32.const 0x6e)) (then (call $for-ever)))))
