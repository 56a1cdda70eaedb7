"""The MPC IR: types, operations, building, checking, text, and its plain meaning."""
