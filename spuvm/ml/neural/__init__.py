"""Neural nets: functions of parameters that JAX differentiates come in, trained and run on secrets."""
