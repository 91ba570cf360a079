"""What people would pick instead of dipgo, each as a variant that runs in a process of its own."""
