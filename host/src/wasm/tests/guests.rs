//! Guests for the tests: a core module in text, wrapped as a component of the contract in `wit/`.

use std::sync::LazyLock;

use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{PackageId, Resolve};

/// The contract, with the worlds of these guests.
static CONTRACT: LazyLock<(Resolve, PackageId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit")).unwrap();
    let worlds = "
        package test:guests@0.1.0;
        world message { include caxton:agent/agent@0.1.0; }
        world stateful { include caxton:agent/stateful-agent@0.1.0; }
        world healthy { include caxton:agent/agent@0.1.0; export caxton:agent/health@0.1.0; }
        world migrating {
            include caxton:agent/agent@0.1.0;
            import caxton:agent/effects@0.1.0;
            export caxton:agent/migration@0.1.0;
        }
        world remembering { include migrating; export caxton:agent/snapshot@0.1.0; }
    ";
    let package = resolve.push_str("guests.wit", worlds).unwrap();
    (resolve, package)
});

/// The parts of a guest.
pub(crate) struct Guest<'a> {
    /// The world: `message`, `stateful`, `healthy`, `migrating` or `remembering`.
    pub(crate) world: &'a str,
    /// The initial pages of its memory.
    pub(crate) pages: u32,
    /// Imports, as text.
    pub(crate) imports: &'a str,
    /// Functions, tables and other definitions, as text.
    pub(crate) more: &'a str,
    /// The code that handles the message at `$message`; `$reply` (address, length) replies.
    pub(crate) handle: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Self { world: "message", pages: 1, imports: "", more: "", handle: "" }
    }
}

impl Guest<'_> {
    /// Builds the component. Its memory has the result of `handle` at 16, and arguments from 1024 on.
    pub(crate) fn build(&self) -> Vec<u8> {
        let Self { imports, pages, more, handle, .. } = self;
        self.wrap(&format!(
            r#"(module $guest
                {imports}
                (memory (export "memory") {pages})
                (global $top (mut i32) (i32.const 1024))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                    (global.get $top)
                    (global.set $top (i32.add (global.get $top) (local.get 3))))
                (func $reply (param $at i32) (param $length i32)
                    (i32.store8 (i32.const 24) (i32.const 1))
                    (i32.store (i32.const 36) (local.get $at))
                    (i32.store (i32.const 40) (local.get $length)))
                {more}
                (func $handle (param $message i32) {handle})
                (func (export "caxton:agent/handler@0.1.0#handle") (param i32) (result i32)
                    (call $handle (local.get 0))
                    (global.set $top (i32.const 1024))
                    (i32.const 16)))"#
        ))
    }

    fn wrap(&self, module: &str) -> Vec<u8> {
        let (resolve, package) = &*CONTRACT;
        let world = resolve.select_world(&[*package], Some(self.world)).unwrap();
        let mut module = wat::parse_str(module).unwrap();
        embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }
}

/// Returns a guest that handles messages with this code.
pub(super) fn handles(handle: &str) -> Vec<u8> {
    Guest { handle, ..Guest::default() }.build()
}

/// Returns a guest that counts its messages in its memory and replies with the count as one byte.
pub(super) fn counts() -> Vec<u8> {
    handles(COUNT)
}

/// Counts at address 8 and replies with that byte.
pub(super) const COUNT: &str = "
    (i32.store8 (i32.const 8) (i32.add (i32.load8_u (i32.const 8)) (i32.const 1)))
    (call $reply (i32.const 8) (i32.const 1))";

/// Adds a core module with a memory of its own to a component.
pub(super) fn with_module(mut component: Vec<u8>, module: &str) -> Vec<u8> {
    let mut depth = 0;
    let mut modules = 0u8;
    for payload in Parser::new(0).parse_all(&component) {
        match payload.unwrap() {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ModuleSection { .. } if depth == 1 => modules += 1,
            _ => {}
        }
    }
    let module = wat::parse_str(module).unwrap();
    // A section with a core module, and one with an instance of it.
    section(&mut component, 1, &module);
    section(&mut component, 2, &[1, 0, modules, 0]);
    component
}

/// Adds a custom section to a component.
pub(super) fn with_section(mut component: Vec<u8>, name: &str, data: &[u8]) -> Vec<u8> {
    let mut content = vec![u8::try_from(name.len()).unwrap()];
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    section(&mut component, 0, &content);
    component
}

fn section(component: &mut Vec<u8>, id: u8, content: &[u8]) {
    component.push(id);
    let mut length = content.len();
    while length >= 0x80 {
        component.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    component.push(u8::try_from(length).unwrap());
    component.extend_from_slice(content);
}
