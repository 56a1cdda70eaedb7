"""Without labels: tables come in; clusters, components and densities go out, secret until they are asked for."""
