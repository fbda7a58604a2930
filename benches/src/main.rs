//! The host as users have it, under a name of its own.

fn main() -> std::process::ExitCode {
    caxton::main()
}
