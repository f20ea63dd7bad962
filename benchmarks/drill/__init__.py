"""The fault drill: what every part of the platform loses when something dies, and for how long."""
