"""The long-lived half of a supervisor: committed facts to whoever listens, commands from whoever may ask."""
