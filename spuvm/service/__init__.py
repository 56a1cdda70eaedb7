"""A party as a service: in, jobs that parties ask for; out, results at those who may have them, and a record."""
