//! What can go wrong for a user, as types.

/// Code could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum CodegenError {
    /// Cranelift does not know this machine.
    #[error("code cannot be generated for this machine: {0}")]
    Machine(String),
    /// No memory for code.
    #[error("no memory for generated code: {0}")]
    Memory(String),
    /// Cranelift refused a function.
    #[error("code generation failed: {0}")]
    Module(String),
}
