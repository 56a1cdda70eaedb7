"""In, a choreography; out, what each party learns from it, proved kernel by kernel."""
