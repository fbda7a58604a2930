//! The host.

fn main() -> std::process::ExitCode {
    caxton::main()
}
