"""In, the choreography; out, one program for each party, of compiled stages."""
