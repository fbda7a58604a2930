//! The host as released, as a binary of this package, so that benches can start it.

fn main() -> std::process::ExitCode {
    caxton::main()
}
