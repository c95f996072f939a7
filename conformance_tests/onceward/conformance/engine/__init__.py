"""The job server under load and under fire: real server processes, killed and stopped, and what they did, judged."""
