"""In, bytecode of a stage that is worth it; out, machine code of its loops, by LLVM."""
