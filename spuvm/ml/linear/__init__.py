"""Linear models: tables and labels come in; coefficients that stay secret until they are asked for go out."""
