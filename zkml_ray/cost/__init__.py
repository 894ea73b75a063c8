"""What circuits cost: columns from settings, seconds and bytes from columns, fitted on machines."""
